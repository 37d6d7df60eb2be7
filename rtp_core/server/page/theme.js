// Not a module: runs before the first paint, so that a chosen theme does not flash.

{
  const root = new URL("../", document.currentScript.src).pathname; // as in storage.js
  try {
    const theme = JSON.parse(sessionStorage.getItem(`rtp:${root}:theme`));
    if (["light", "dark"].includes(theme)) document.documentElement.dataset.theme = theme;
  } catch {
    // storage switched off: the system's theme
  }
}
