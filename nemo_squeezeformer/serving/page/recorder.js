// The recorder of a microphone. It runs in the audio thread of the browser, and posts blocks of 16-bit samples.

const BLOCK = 2048; // samples

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(BLOCK);
    this.filled = 0;
    this.ended = false;
    this.port.onmessage = () => { // the end of the recording
      this.ended = true;
      this.post();
      this.port.postMessage(null);
    };
  }

  process([[samples]]) { // the browser has mixed all channels into one
    if (samples && !this.ended) { // a browser can call this again, because the microphone is still connected
      for (const sample of samples) {
        this.block[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(32768 * sample)));
        if (this.filled === BLOCK) this.post();
      }
    }
    return !this.ended;
  }

  post() {
    const block = this.block.slice(0, this.filled);
    this.filled = 0;
    if (block.length) this.port.postMessage(block.buffer, [block.buffer]);
  }
}

registerProcessor("recorder", Recorder);
