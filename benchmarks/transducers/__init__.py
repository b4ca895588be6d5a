"""Do transducers and hybrid models learn, and do their word timestamps agree with the true times?"""
