"""DFT labels: write and run DFT inputs, read what they print, and keep only frames that deserve a label."""
