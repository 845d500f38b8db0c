"""五个应用，由公式和模块搭成 / The five applications, built from the formulas and modules."""
