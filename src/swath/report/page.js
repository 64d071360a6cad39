"use strict";
const root = document.documentElement;
document.getElementById("theme").onclick = () => {
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
};

// Curves: the value of every line at the pointer.
for (const chart of document.querySelectorAll("svg.chart")) {
  const data = JSON.parse(chart.dataset.lines);
  const cursor = chart.querySelector(".cursor");
  const keys = chart.parentElement.querySelectorAll(".keys span b");
  const show = (x) => {
    data.lines.forEach((line, i) => {
      let at = line.x.length - 1;
      if (x !== null) line.x.forEach((v, j) => {
        if (Math.abs(v - x) < Math.abs(line.x[at] - x)) at = j;
      });
      keys[i].textContent = line.said[at];
    });
  };
  chart.onpointermove = (event) => {
    const box = chart.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * data.width;
    const inside = Math.min(Math.max(at, data.left), data.right);
    cursor.setAttribute("x1", inside);
    cursor.setAttribute("x2", inside);
    cursor.style.visibility = "visible";
    show(data.from + ((inside - data.left) / (data.right - data.left)) * (data.to - data.from));
  };
  chart.onpointerleave = () => { cursor.style.visibility = "hidden"; show(null); };
  show(null);
}

// Map: layers, opacity, zoom about the pointer, drag, and the class under it.
for (const map of document.querySelectorAll(".map")) {
  const about = JSON.parse(map.querySelector("script").textContent);
  const view = map.querySelector(".view");
  const stack = map.querySelector(".stack");
  const read = map.querySelector(".read");
  const layer = (name) => stack.querySelector("img." + name);
  const slider = map.querySelector("input[type=range]");
  slider.oninput = () => { layer("classes").style.opacity = slider.value / 100; };
  slider.oninput();
  for (const button of map.querySelectorAll("button[data-layer]")) {
    button.onclick = () => {
      const image = layer(button.dataset.layer);
      image.hidden = !image.hidden;
      button.setAttribute("aria-pressed", String(!image.hidden));
    };
  }
  let scale = 1, x = 0, y = 0, held = null;
  const place = () => {
    const box = view.getBoundingClientRect();
    x = Math.min(0, Math.max(x, box.width - stack.offsetWidth * scale));
    y = Math.min(0, Math.max(y, box.height - stack.offsetHeight * scale));
    stack.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
  };
  const zoom = (factor, px, py) => {
    const next = Math.min(16, Math.max(1, scale * factor));
    x = px - ((px - x) * next) / scale;
    y = py - ((py - y) * next) / scale;
    scale = next;
    place();
  };
  const middle = (factor) => {
    const box = view.getBoundingClientRect();
    zoom(factor, box.width / 2, box.height / 2);
  };
  map.querySelector("[data-zoom=in]").onclick = () => middle(1.6);
  map.querySelector("[data-zoom=out]").onclick = () => middle(1 / 1.6);
  view.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && scale === 1 && event.deltaY > 0) return;  // let the page scroll
    event.preventDefault();
    const box = view.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  view.onpointerdown = (event) => { held = [event.clientX - x, event.clientY - y]; };
  addEventListener("pointerup", () => { held = null; });

  const pixels = (name) => {
    const image = layer(name);
    if (!image) return null;
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0);
    return { pen, width: canvas.width, height: canvas.height };
  };
  const names = new Map(about.classes.map((c) => [c.rgb.join(), c.name]));
  const cached = {};
  const named = (name, u, v) => {
    cached[name] ??= pixels(name);
    const found = cached[name];
    if (!found) return null;
    const [r, g, b, a] = found.pen.getImageData(
      Math.floor(u * found.width), Math.floor(v * found.height), 1, 1).data;
    return a ? names.get([r, g, b].join()) : undefined;
  };
  const idle = read.textContent;
  view.onpointermove = (event) => {
    if (held) { x = event.clientX - held[0]; y = event.clientY - held[1]; place(); }
    const box = view.getBoundingClientRect();
    const u = (event.clientX - box.left - x) / (stack.offsetWidth * scale);
    const v = (event.clientY - box.top - y) / (stack.offsetHeight * scale);
    if (u < 0 || v < 0 || u >= 1 || v >= 1) return;
    const [a, b, c, d, e, f] = about.transform;
    const col = u * about.width, row = v * about.height;
    const digits = about.degrees ? 5 : 0;
    const where = [a * col + b * row + c, d * col + e * row + f].map((n) => n.toFixed(digits));
    const parts = [`${where.join(", ")} ${about.crs}`];
    read.textContent = parts[0];
    for (const [name, word] of [["classes", "map"], ["reference", "reference"]]) {
      const found = named(name, u, v);
      if (!found) continue;
      const bold = document.createElement("b");
      bold.textContent = found;
      read.append(` · ${word}: `, bold);
    }
  };
  view.onpointerleave = () => { read.textContent = idle; };
  addEventListener("resize", place);
}
