// The landing page: this relay's address as the browser has it, counts, and buttons that copy.

"use strict";

const EVERY_MS = 10_000;

const addresses = { http: location.origin, ws: `${location.origin.replace(/^http/, "ws")}/arc` };
for (const place of document.querySelectorAll("[data-address]")) place.textContent = addresses[place.dataset.address];

for (const pre of document.querySelectorAll("pre")) {
  const button = document.createElement("button");
  button.type = "button";
  const say = (word) => {
    button.textContent = word;
    button.setAttribute("aria-label", `${word}: ${pre.textContent}`);
  };
  say("Copy");
  button.addEventListener("click", async () => {
    say((await copied(pre)) ? "Copied" : "Select it");
    setTimeout(say, 2_000, "Copy");
  });
  const command = document.createElement("div");
  command.className = "command";
  pre.replaceWith(command);
  command.append(pre, button);
}

/** Whether the text is in the clipboard now. Without https, browsers only copy what is selected. */
async function copied(pre) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(pre);
    return document.execCommand("copy");
  }
}

const written = new Intl.NumberFormat("en");

async function count() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/landing/counts");
    if (!answer.ok) return;
    const counts = await answer.json();
    for (const place of document.querySelectorAll("[data-count]")) place.textContent = written.format(counts[place.dataset.count]);
    document.getElementById("closed").hidden = counts.open;
  } catch {
    // It is asked again.
  }
}

count();
setInterval(count, EVERY_MS);
