// Dark or light colours: those of the system, unless the switch has chosen the other ones. A script, not a module:
// it runs before the page is drawn.

{
  const STORAGE_NAME = "thirteen.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  const chosen = () => {
    try {
      return localStorage.getItem(STORAGE_NAME);
    } catch {
      return null; // the browser allows no storage
    }
  };

  const choose = (theme) => {
    try {
      if (theme) localStorage.setItem(STORAGE_NAME, theme);
      else localStorage.removeItem(STORAGE_NAME);
    } catch {
      // the choice holds until the page is left
    }
  };

  const show = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };

  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

  show(chosen());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const press = () => button.setAttribute("aria-pressed", isDark());
    press();
    system.addEventListener("change", press);
    button.addEventListener("click", () => {
      const dark = !isDark();
      const theme = dark === system.matches ? null : dark ? "dark" : "light";
      choose(theme);
      show(theme);
      press();
    });
  });
}
