"""每本笔记本训练和考试的，文件与笔记本同名 / What each notebook trains and tests, in a file of the notebook's name."""
