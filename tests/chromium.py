"""The Chromium that browser tests drive."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER_TEST = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]

# Visible texts whose contrast with the background is below the 4.5:1 of WCAG 2.
LOW_CONTRAST = """() => {
  const luminance = (color) => color.slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const background = (e) => { const c = e ? parse(getComputedStyle(e).backgroundColor) : [255, 255, 255];
    return c[3] === 0 ? background(e.parentElement) : c; };
  const texts = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() &&
    (e.tagName === "TEXTAREA" || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())));
  return texts.map((e) => {
    const pair = [luminance(parse(getComputedStyle(e).color)), luminance(background(e))];
    const [high, low] = pair.sort((a, b) => b - a);
    return [(high + 0.05) / (low + 0.05), e.outerHTML.slice(0, 80)];
  }).filter(([contrast]) => contrast < 4.5);
}"""
