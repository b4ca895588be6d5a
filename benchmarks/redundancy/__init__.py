"""How alike are neighbouring frames after each block, with the U-Net and without?"""
