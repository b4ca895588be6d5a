"""How many parameters and operations do the six sizes have, and how much time and memory do they need?"""
