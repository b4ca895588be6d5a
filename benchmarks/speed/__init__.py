"""How much time and memory does each encoder need for audio of each length?"""
