"use strict";
// The control "Notify me on this device": makes a subscription for Web Push and gives it to the relay, or ends it.

const device = document.getElementById("device");
const button = device.querySelector("button");
const hint = device.querySelector("p");

async function subscriptions() {
  await navigator.serviceWorker.register("/worker.js");
  return (await navigator.serviceWorker.ready).pushManager;
}

async function tell(action, subscription) {
  const { endpoint, keys } = subscription.toJSON();
  const form = { token: device.dataset.token, action, endpoint, p256dh: keys.p256dh, auth: keys.auth };
  const answer = await fetch("/push", { method: "POST", redirect: "manual", body: new URLSearchParams(form) });
  if (answer.ok) return;
  const is_text = answer.headers.get("content-type")?.startsWith("text/plain");
  throw new Error(is_text ? await answer.text() : "Load this page anew, and try again.");
}

async function notify(manager) {
  if (await Notification.requestPermission() !== "granted") {
    throw new Error("This browser does not let this site notify you: allow it in its settings for this site.");
  }
  const options = { userVisibleOnly: true, applicationServerKey: device.dataset.key };
  const subscription = await manager.subscribe(options);
  try {
    await tell("add", subscription);
  } catch (error) {
    await subscription.unsubscribe();
    throw error;
  }
}

async function forget(subscription) {
  await subscription.unsubscribe();
  await tell("remove", subscription);
}

async function offer(manager) {
  const subscription = await manager.getSubscription();
  button.textContent = subscription ? "Do not notify me on this device any more" : "Notify me on this device";
  button.hidden = false;
  button.onclick = async () => {
    button.disabled = true;
    try {
      await (subscription ? forget(subscription) : notify(manager));
      hint.textContent = subscription ? "You are not notified here any more." : "You are notified here from now on.";
    } catch (error) {
      hint.textContent = `This did not work. ${error.message}`;
    }
    button.disabled = false;
    await offer(manager);
  };
}

device.hidden = false;
if (!("serviceWorker" in navigator && "PushManager" in window && "Notification" in window)) {
  hint.textContent = "This browser cannot be notified. On an iPhone or iPad, add this page to the home screen and open it there.";
} else {
  subscriptions().then(offer).catch((error) => { hint.textContent = `This device cannot be notified. ${error.message}`; });
}
