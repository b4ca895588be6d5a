// Live captions: a WebSocket carries the samples of the microphone to the server, and the text back.

import { model, show } from "./model.js";

const SOUND = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const start = document.querySelector("#start");
const stop = document.querySelector("#stop");
const captions = document.querySelector("#captions");

if (!model.live) {
  show("#state", `There are no live captions: ${model.reason}`, true);
} else if (!navigator.mediaDevices) {
  show("#state", "This browser gives the microphone only to pages at https:// addresses and at localhost.", true);
} else {
  start.disabled = false;
}

start.onclick = () => new Captions();

class Captions {
  constructor() {
    start.disabled = true;
    captions.textContent = "";
    this.note = "";
    this.over = false;
    show("#state", "Connecting");
    this.audio = new AudioContext(); // a browser allows sound only after a click
    const address = new URL("live", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    this.socket.onopen = () => this.socket.send(JSON.stringify({ rate: this.audio.sampleRate }));
    this.socket.onmessage = (event) => this.receive(JSON.parse(event.data));
    this.socket.onclose = () => this.end("The connection to the server has ended.", true);
    stop.onclick = () => this.finish();
    stop.disabled = false;
  }

  receive(message) {
    if (message.kind === "wait") {
      show("#state", `All places are taken. You are number ${message.place} in the line.`);
    } else if (message.kind === "begin") {
      show("#state", "The microphone is being opened");
      this.record().catch((error) => this.end(`The microphone cannot be used: ${error.message}`, true));
    } else if (message.kind === "note") {
      this.note = message.add;
    } else if (message.kind === "error") {
      this.end(message.add, true);
    } else {
      captions.textContent = captions.textContent.slice(0, message.keep) + message.add;
      captions.scrollTop = captions.scrollHeight;
      if (message.kind === "final") this.end(this.note || "Done");
    }
  }

  async record() {
    this.media = await navigator.mediaDevices.getUserMedia({ audio: SOUND });
    if (this.over) return this.release(); // stopped while the browser asked for the permission
    await this.audio.audioWorklet.addModule("page/recorder.js");
    if (this.over) return this.release();
    const source = this.audio.createMediaStreamSource(this.media);
    const mono = { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" };
    this.recorder = new AudioWorkletNode(this.audio, "recorder", mono);
    this.recorder.port.onmessage = ({ data }) => this.send(data ?? "end");
    source.connect(this.recorder);
    this.media.getAudioTracks()[0].onended = () => this.finish(); // the microphone has been unplugged
    show("#state", "Listening");
  }

  send(data) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(data);
  }

  finish() { // the final text comes after the last samples
    stop.disabled = true;
    if (!this.recorder) return this.end("");
    show("#state", "The last words are being recognized");
    this.recorder.port.postMessage("end");
  }

  end(text, problem = false) {
    if (this.over) return;
    this.over = true;
    this.release();
    this.socket.close();
    stop.disabled = true;
    start.disabled = false;
    show("#state", text, problem);
  }

  release() {
    this.media?.getTracks().forEach((track) => track.stop());
    if (this.audio.state !== "closed") this.audio.close();
  }
}
