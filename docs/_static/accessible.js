// Code that is wider than the page can be scrolled by the keyboard, and the search button is called
// what it shows, also on phones, where it shows an icon only.
document.addEventListener("DOMContentLoaded", () => {
  for (const block of document.querySelectorAll("pre")) block.tabIndex = 0;
  for (const button of document.querySelectorAll(".search-button__button"))
    button.ariaLabel = button.textContent.trim().replace(/\s+/g, " ") || "Search";
});
