// What a browser made of a page, as text in its last element.
"use strict";
const all = (what) => [...document.querySelectorAll(what)];
const bytes = (e) => Number(e.dataset.bytes);
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const box = (e) => e.getBoundingClientRect();
const map = document.querySelector(".map");
const tiles = all(".map div");
const inner = map ? map.clientWidth * map.clientHeight : 0;
const out = document.createElement("pre");
out.id = "measured";
out.textContent = JSON.stringify({
  title: document.title,
  fetched: performance.getEntriesByType("resource").length,
  tiles: tiles.length,
  outside: tiles.filter((e) => box(e).left < box(map).left - 1 || box(e).right > box(map).right + 1 || box(e).top < box(map).top - 1 || box(e).bottom > box(map).bottom + 1).length,
  colours: new Set(tiles.map((e) => getComputedStyle(e).backgroundColor)).size,
  area: inner ? sum(tiles.map((e) => box(e).width * box(e).height)) / inner : 0,
  worst: inner ? Math.max(...tiles.filter((e) => bytes(e) > bytes(map) / 100).map((e) => Math.abs(box(e).width * box(e).height / inner / (bytes(e) / bytes(map)) - 1))) : 0,
  total: map ? bytes(map) : 0,
  tileBytes: sum(tiles.map(bytes)),
  rowBytes: sum(all("tr[data-bytes]").map(bytes)),
  rows: all("tr").length,
  wide: document.documentElement.scrollWidth > window.innerWidth,
});
document.body.append(out);
