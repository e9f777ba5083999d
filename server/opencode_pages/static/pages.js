"use strict";
// What reads and types better with a script. All of it works without.

function localTimes(within) {
  const today = new Date().toDateString();
  for (const time of within.querySelectorAll("time[data-at]")) {
    const at = new Date(time.dataset.at * 1000);
    const day = at.toDateString() === today ? {} : { month: "short", day: "numeric" };
    time.title = time.textContent;
    time.textContent = at.toLocaleString([], { ...day, hour: "numeric", minute: "2-digit" });
  }
}

localTimes(document);

// Who writes an answer means it.
for (const field of document.querySelectorAll(".item textarea")) {
  const own = field.closest(".item").querySelector("input[type=radio][value=own]");
  if (own) field.addEventListener("input", () => { if (field.value.trim()) own.checked = true; });
}
