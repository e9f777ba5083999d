"use strict";
// Passkeys: makes one, or has one sign. A button that needs one says which (`data-passkey`: make, use) and where what
// to ask for is to be had (`data-options`); the answer goes with its form, in the field `passkey`.

const WORDS = {
  NotAllowedError: "It was cancelled, took too long, or this device has no passkey for this relay.",
  InvalidStateError: "This device has a passkey for this relay already.",
  SecurityError: "This browser has no passkeys for this address.",
};
const able = Boolean(window.PublicKeyCredential?.parseRequestOptionsFromJSON);

async function answer(button, body) {
  if (!able) throw new Error("This browser cannot use passkeys here: take a newer one.");
  const asked = await fetch(button.dataset.options, { method: "POST", redirect: "manual", body });
  const kind = asked.headers.get("content-type") ?? "";
  if (!asked.ok) throw new Error(kind.startsWith("text/plain") ? await asked.text() : "Load this page anew, and try again.");
  const options = await asked.json();
  const made = button.dataset.passkey === "make"
    ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
    : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
  return JSON.stringify(made.toJSON());
}

function say(form, text) {
  let said = form.querySelector(".message");
  if (!said) {
    said = document.createElement("p");
    said.className = "message";
    said.setAttribute("role", "alert");
    form.prepend(said);
  }
  said.textContent = text;
  said.scrollIntoView({ block: "nearest" });
}

for (const hint of document.querySelectorAll(".scriptless")) hint.hidden = true;
for (const field of document.querySelectorAll("input[name=passkey]")) {
  const form = field.form;
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    const button = event.submitter;
    if (!button?.dataset.passkey || field.value) return;
    event.preventDefault();
    const body = new URLSearchParams(new FormData(form, button));
    button.disabled = true;
    try {
      field.value = await answer(button, body);
    } catch (error) {
      say(form, WORDS[error.name] ?? error.message);
      return;
    } finally {
      button.disabled = false;
    }
    form.requestSubmit(button);
  });
  // Who comes back to this page signs anew.
  addEventListener("pageshow", () => { field.value = ""; });
}
