"use strict";

const at = (id) => document.getElementById(id);
const NUMBERS = ["beams", "max_new_tokens", "neighbors"];
let picture = null;
let latest = 0; // the last question: answers to earlier ones are not shown

async function answerOf(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  const told = await response.json();
  if (!response.ok) {
    const again = response.headers.get("Retry-After");
    throw new Error(told.error.message + (again ? ` (${told.error.type}; try again in ${again} s)` : ""));
  }
  return told;
}

async function ask(path, options, show) {
  const question = ++latest;
  clear();
  at("status").textContent = "Asking …";
  try {
    const told = await answerOf(path, options);
    if (question === latest) show(told);
  } catch (error) {
    if (question === latest) at("error").textContent = error.message;
  }
  if (question === latest) at("status").textContent = "";
}

function clear() {
  for (const id of ["error", "caption", "timings"]) at(id).textContent = "";
  at("hits").replaceChildren();
  at("heading").hidden = true;
}

function take(file) {
  if (!file) return;
  picture = file;
  URL.revokeObjectURL(at("asked").src);
  at("asked").src = URL.createObjectURL(file);
  at("asked").hidden = at("again").disabled = false;
  askAboutPicture();
}

function askAboutPicture() {
  const options = { method: "POST", body: picture };
  if (document.querySelector("[name=task]:checked").value === "search") {
    ask("search?k=12", options, showHits);
  } else {
    const given = NUMBERS.filter((name) => at(name).value !== "").map((name) => [name, at(name).value]);
    ask(`caption?${new URLSearchParams(given)}`, options, showCaption);
  }
}

function showCaption(told) {
  at("caption").textContent = told.caption || "(the model said nothing)";
  const removed = told.removed ? `; removed, as the same picture: ${told.removed}` : "";
  const read = told.neighbors.length ? `Read beside the picture: ${told.neighbors.length} neighbours` : "No neighbours were read";
  listHits(told.neighbors, read + removed);
  showTimings(told.seconds);
}

function showHits(told) {
  listHits(told.hits, told.hits.length ? `${told.hits.length} nearest pairs` : "Nothing was found");
  showTimings(told.seconds);
}

function listHits(hits, heading) {
  at("heading").textContent = heading;
  at("heading").hidden = false;
  at("hits").replaceChildren(...hits.map(hitItem));
}

function hitItem(hit) {
  const item = document.createElement("li");
  const picture = Object.assign(new Image(), { src: hit.picture, alt: hit.caption, loading: "lazy" });
  const where = element("small", hit.pair_id);
  if (/^https?:/.test(hit.url ?? "")) {
    where.append(" ", Object.assign(element("a", "source"), { href: hit.url, rel: "noopener noreferrer" }));
  }
  item.append(picture, element("p", hit.caption), element("small", `cosine ${hit.similarity.toFixed(3)}`), where);
  return item;
}

function element(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}

function showTimings(seconds) {
  const parts = Object.entries(seconds).map(([part, took]) => `${part} ${(1000 * took).toFixed(0)} ms`);
  at("timings").textContent = parts.join(" · ");
}

function showAbout(told) {
  at("about").textContent = told.index
    ? `${told.checkpoint}, with ${told.pairs.toLocaleString("en")} pairs of ${told.index}`
    : `${told.checkpoint}, without an index`;
  at("most").textContent = `, at most ${told.limits.body_bytes / 1e6} MB`;
  const most = { beams: told.limits.beams, max_new_tokens: told.limits.new_tokens, neighbors: told.neighbors };
  for (const name of NUMBERS) at(name).max = most[name];
  at("neighbors").value = told.neighbors;
  for (const input of document.querySelectorAll("#search input, #search button, [value=search]")) {
    input.disabled = !told.index;
  }
}

at("file").addEventListener("change", () => take(at("file").files[0]));
for (const name of ["dragover", "dragenter", "dragleave", "drop"]) {
  at("drop").addEventListener(name, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", name === "dragover" || name === "dragenter");
  });
}
at("drop").addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
at("drop").addEventListener("submit", (event) => {
  event.preventDefault();
  askAboutPicture();
});
at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(`search?k=12&${new URLSearchParams({ text: at("text").value })}`, {}, showHits);
});
answerOf("health").then(showAbout, (error) => (at("error").textContent = error.message));
