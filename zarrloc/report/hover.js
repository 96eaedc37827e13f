// Fills the map's tip from the tables in the page; names become text, never markup.
"use strict";
(() => {
  const tables = JSON.parse(document.getElementById("tables").textContent);
  const tip = document.getElementById("tip");
  const picture = document.getElementById("tip-picture");
  const SIDE = 16;
  let owner = null;

  function show(data, at) {
    const value = (name) => tables[name][data[name][at]];
    const put = (id, text) => { document.getElementById(id).textContent = text; };
    put("tip-protein", value("protein"));
    put("tip-name", value("fov") + (tables.level === "cell" ? `, cell ${data.row[at]}` : ""));
    put("tip-reference", value("reference"));
    put("tip-predicted", value("predicted"));
    const tile = data.tile[at];
    picture.hidden = tile < 0;
    if (tile < 0) return;
    const sheet = document.getElementById(`sheet-${Math.floor(tile / (SIDE * SIDE))}`);
    const place = tile % (SIDE * SIDE);
    const side = picture.clientWidth || 160;
    picture.style.backgroundImage = `url("${sheet.textContent.trim()}")`;
    picture.style.backgroundSize = `${SIDE * side}px auto`;
    picture.style.backgroundPosition =
      `${-(place % SIDE) * side}px ${-Math.floor(place / SIDE) * side}px`;
  }

  window.zarrlocHover = ({ index, geometry, renderer }) => {
    if (index.indices.length === 0) {
      // Every renderer reports; only the one that is shown may take the tip away.
      if (owner === renderer.id) { tip.hidden = true; owner = null; }
      return;
    }
    owner = renderer.id;
    tip.hidden = false;
    show(renderer.data_source.data, index.indices[0]);
    const frame = tip.parentElement;
    const left = geometry.sx + 18 + tip.offsetWidth > frame.clientWidth
      ? geometry.sx - 18 - tip.offsetWidth : geometry.sx + 18;
    const top = Math.min(geometry.sy + 12, frame.clientHeight - tip.offsetHeight);
    tip.style.transform = `translate(${Math.max(0, left)}px, ${Math.max(0, top)}px)`;
  };
})();
