// Offers to install the page as an app, where the browser can.

/** @param {HTMLButtonElement} button shown while the page can be installed. */
export function offerInstallation(button) {
  let offer = null; // a BeforeInstallPromptEvent, of which prompt() works once
  addEventListener("beforeinstallprompt", (event) => {
    event.preventDefault(); // the button asks instead
    offer = event;
    button.hidden = false;
  });
  addEventListener("appinstalled", () => (button.hidden = true));
  button.addEventListener("click", () => {
    button.hidden = true;
    offer?.prompt();
    offer = null;
  });
}
