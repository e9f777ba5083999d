"use strict";
// Shows what the relay pushes, says that it was shown, and opens its page.

const HOME = "/inbox";

self.addEventListener("push", (event) => event.waitUntil(told(event.data)));

async function told(data) {
  let message = {};
  try {
    message = data.json();
  } catch {
    // Browsers want to see something for each push, whatever it says.
  }
  const { id = "", title = "opencode-relay", body = "", url = HOME, tag = id, withdrawn = false } = message;
  const options = { body, tag, silent: Boolean(withdrawn), icon: "/icon-192.png", data: { url } };
  await self.registration.showNotification(title, options);
  if (withdrawn) {
    for (const shown of await self.registration.getNotifications({ tag })) shown.close();
    return;
  }
  const receipt = JSON.stringify({ id, state: "shown" });
  const headers = { "Content-Type": "application/json" };
  await fetch("/receipts", { method: "POST", headers, body: receipt, credentials: "omit" }).catch(() => undefined);
}

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(self.clients.openWindow(within(event.notification.data.url)));
});

// Whoever could write to this browser sends nobody elsewhere.
function within(url) {
  try {
    const page = new URL(url, self.location.origin);
    return page.origin === self.location.origin ? page.href : HOME;
  } catch {
    return HOME;
  }
}
