"""制作文件的脚本：随包的，和一个班的结果 / Scripts that make files: the shipped ones, and the results of a class."""
