"""How similar are neighboring frames after each block, with and without the temporal U-Net?"""
