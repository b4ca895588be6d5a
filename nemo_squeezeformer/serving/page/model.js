// The description of the model and the limits of the page, which the server gives.

const answer = await fetch("model");
export const model = await answer.json();

const latency = model.live ? `, captions every ${model.latency} ms` : "";
document.querySelector("#model").textContent = `${model.name}${latency}`;

// Show a line of text in an element. A problem has another colour.
export function show(selector, text, problem = false) {
  const element = document.querySelector(selector);
  element.textContent = text;
  element.classList.toggle("problem", problem);
}
