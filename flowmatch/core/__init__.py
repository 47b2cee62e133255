"""What every room may use: components, checks of parameters, random generators, devices, files of tensors."""
