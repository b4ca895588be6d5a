"""The web page of ``nemo-squeezeformer serve``: live captions of several microphones, and the text of audio files.

aiohttp serves the page, and the browser sends samples over a WebSocket. No sample is lost, and the server notices a
closed browser at once. The live audio of gradio is not suitable: while gradio 6.31 processes a block of a microphone, a
new block replaces the block that waits. In a trial on a busy machine, one of 31 blocks was lost.
"""
