// Dark or light colors: the system's, or the other ones. No module, so that it runs before the page is drawn.
{
  const STORAGE_NAME = "thirteen.theme";
  const { dataset } = document.documentElement;
  const system = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  try {
    dataset.theme = localStorage.getItem(STORAGE_NAME) ?? "";
  } catch {
    // the browser stores nothing
  }
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const other = (dataset.theme || system()) === "dark" ? "light" : "dark";
      dataset.theme = other === system() ? "" : other;
      try {
        localStorage.setItem(STORAGE_NAME, dataset.theme);
      } catch {
        // it holds until the page is left
      }
    });
  });
}
