"use strict";
// A password that was typed on a phone can be looked at. Without a script it stays hidden.

for (const field of document.querySelectorAll("input[type=password]")) {
  const button = document.createElement("button");
  const show = (shown) => {
    field.type = shown ? "text" : "password";
    button.textContent = shown ? "Hide the password" : "Show the password";
  };
  button.type = "button";
  button.className = "reveal";
  button.addEventListener("click", () => show(field.type === "password"));
  // So that the browser knows what it may keep, and the page has none in it afterwards.
  field.form.addEventListener("submit", () => show(false));
  show(false);
  field.after(button);
}
