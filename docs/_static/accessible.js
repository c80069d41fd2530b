// What is wider than the page can be scrolled by the keyboard, buttons are called what they show (the
// search shows an icon on phones, the arrows of the sidebar always), and cells of pandas without a
// text are no headers.
document.addEventListener("DOMContentLoaded", () => {
  for (const block of document.querySelectorAll("pre, .wide-picture, table.dataframe"))
    block.tabIndex = 0;
  for (const button of document.querySelectorAll(".search-button__button"))
    button.ariaLabel = button.textContent.trim().replace(/\s+/g, " ") || "Search";
  for (const arrow of document.querySelectorAll("li.has-children > details > summary"))
    arrow.ariaLabel = `Pages of ${arrow.closest("li").querySelector("a").textContent.trim()}`;
  for (const cell of document.querySelectorAll("th:empty")) cell.outerHTML = "<td></td>";
});
