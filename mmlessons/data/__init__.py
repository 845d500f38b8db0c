"""真实的小数据集，随包附带 / Small real data sets, shipped with the package."""
