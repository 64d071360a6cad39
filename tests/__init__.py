"""The tests mirror ``src/swath``; a test's name is its claim and its docstring the reason."""
