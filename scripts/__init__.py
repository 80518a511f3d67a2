"""What prints, draws and installs for the project; nothing of it is part of the package."""
