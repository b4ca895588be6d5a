"""How well and how fast does each encoder learn, and at which learning rate?"""
