"""Reading and writing media: frames from and to image folders and video files. Imports no JAX."""
