"""Which encoder learns how well, how fast, at which learning rate?"""
