// The settings behind the gear, system prompt and temperature, which this browser keeps.

import { load, save } from "./store.js";

const STORAGE_NAME = "thirteen.settings";
const AGAIN_TEMPERATURE = 0.7; // at 0 an answer would be the same again

export class Settings {
  /**
   * @param {HTMLFormElement} form with the fields `system` and `temperature`.
   * @param {HTMLElement} popover shows the form.
   */
  constructor(form, popover) {
    [this.system, this.temperature] = [form.elements.system, form.elements.temperature];
    const { system = "", temperature = "" } = load("localStorage", STORAGE_NAME) ?? {};
    [this.system.value, this.temperature.value] = [system, temperature];
    form.addEventListener("input", () => this.#store());
    form.addEventListener("reset", () => setTimeout(() => this.#store())); // the fields are reset after the event
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      popover.hidePopover();
    });
  }

  /** Fields of a request, for a question that is asked for the first time or again; what is not set is left out. */
  fields(again) {
    const system = this.system.value.trim();
    const chosen = this.temperature.valueAsNumber;
    const temperature = again ? chosen || AGAIN_TEMPERATURE : chosen;
    return { ...(system && { system }), ...(temperature >= 0 && { temperature }) };
  }

  #store() {
    const [system, temperature] = [this.system.value, this.temperature.value];
    save("localStorage", STORAGE_NAME, system || temperature ? { system, temperature } : null);
  }
}
