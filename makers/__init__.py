"""制作随包文件的脚本，谁也不导入它们 / Scripts that make the shipped files; nobody imports them."""
