// The text, the word times and the subtitles of an audio file.

import { model, show } from "./model.js";

const audio = document.querySelector("#audio");
const button = document.querySelector("#transcribe");
const player = document.querySelector("#player");
const addresses = []; // of the contents that this page offers

audio.onchange = () => { button.disabled = !audio.files.length; };
button.disabled = !audio.files.length;
button.onclick = transcribe;

async function transcribe() {
  const [file] = audio.files;
  if (file.size > model.bytes) {
    return show("#progress", `${file.name} is larger than ${model.bytes / 1e6} MB, the limit of this page.`, true);
  }
  button.disabled = true;
  document.querySelector("#result").hidden = true;
  show("#progress", "The file is being transcribed");
  try {
    const answer = await fetch(`file?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    const result = await answer.json();
    if (!answer.ok) throw new Error(result.error);
    present(file, result);
    show("#progress", `${result.seconds.toFixed(1)} s of audio`);
  } catch (error) {
    show("#progress", error.message, true);
  }
  button.disabled = false;
}

function present(file, result) {
  addresses.splice(0).forEach((address) => URL.revokeObjectURL(address));
  player.src = addressOf(file);
  const spans = result.words.map(([word, start]) => {
    const span = document.createElement("span");
    span.textContent = word;
    span.onclick = () => { player.currentTime = start; };
    return span;
  });
  const text = spans.flatMap((span) => [span, " "]);
  document.querySelector("#words").replaceChildren(...(spans.length ? text : [result.text]));
  player.ontimeupdate = () => result.words.forEach(([, start, end], i) => {
    spans[i].classList.toggle("spoken", start <= player.currentTime && player.currentTime < end);
  });
  document.querySelector("#times").replaceChildren(...result.words.map(row));
  const name = file.name.replace(/\.[^.]*$/, "");
  const links = [download(`${name}.txt`, `${result.text}\n`)];
  if (spans.length) links.push(download(`${name}.srt`, result.srt), download(`${name}.vtt`, result.vtt));
  document.querySelector("#downloads").replaceChildren(...links);
  document.querySelector("#result").hidden = false;
}

function row([word, start, end]) {
  const tr = document.createElement("tr");
  for (const value of [start.toFixed(2), end.toFixed(2), word]) tr.insertCell().textContent = value;
  return tr;
}

function download(name, text) {
  const link = document.createElement("a");
  link.download = name;
  link.href = addressOf(new Blob([text], { type: "text/plain" }));
  link.textContent = name;
  return link;
}

function addressOf(blob) {
  const address = URL.createObjectURL(blob);
  addresses.push(address);
  return address;
}
