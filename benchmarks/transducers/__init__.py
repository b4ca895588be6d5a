"""Do transducers learn beside CTC, and do word timestamps fit the true ones?"""
