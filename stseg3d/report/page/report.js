"use strict";
// Sorts and searches the table, opens a case by the address's hash, and feeds the viewer when a case is opened.
(() => {
  const linked = document.currentScript.dataset.volumes;
  const overview = document.getElementById("overview");
  const page = document.getElementById("case");
  const body = overview.querySelector("tbody");
  const rows = [...body.rows];
  const title = document.title;

  // --- table -----------------------------------------------------------------

  const compare = {
    number: (a, b) => a - b,
    text: (a, b) => a.localeCompare(b, undefined, { numeric: true }),
  };

  function sortBy(button) {
    const head = button.closest("th");
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of head.parentElement.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", direction);
    const value = (row) => row.cells[button.dataset.column].dataset.value;
    const order = compare[button.dataset.kind];
    const sign = direction === "ascending" ? 1 : -1;
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // without a number: last, either way
      return sign * order(x, y);
    });
    body.append(...rows);
  }

  for (const button of overview.querySelectorAll("thead button")) button.addEventListener("click", () => sortBy(button));

  const shown = document.getElementById("shown");
  const all = shown.textContent;
  document.getElementById("search").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += !row.hidden;
    }
    shown.textContent = words.length ? `${count} of ${all}` : all;
  });

  // --- cases -----------------------------------------------------------------

  let left = null; // what was in view before a case was opened

  function link(text, n, name) {
    const a = document.createElement("a");
    a.href = n === null ? "#cases" : `#case-${n}`;
    a.textContent = text;
    a.className = name;
    return a;
  }

  function way(n) {
    const nav = document.createElement("nav");
    nav.className = "way";
    nav.setAttribute("aria-label", "Cases");
    nav.append(link("← All cases", null, "back"));
    // Neighbours are those of the table as it is sorted and searched now.
    const order = rows.filter((row) => !row.hidden).map((row) => Number(row.querySelector("a").hash.slice(6)));
    const at = order.indexOf(n);
    if (at > 0) nav.append(link("Previous case", order[at - 1], "next"));
    if (at >= 0 && at < order.length - 1) nav.append(link("Next case", order[at + 1], at > 0 ? "" : "next"));
    return nav;
  }

  function open(n, template) {
    if (!overview.hidden) left = { scroll: window.scrollY, focus: document.activeElement };
    page.replaceChildren(way(n), template.content.cloneNode(true));
    overview.hidden = true;
    page.hidden = false;
    document.title = `${template.dataset.name} – ${title}`;
    window.scrollTo({ top: 0, behavior: "instant" });
    page.querySelector("h2").focus({ preventScroll: true });
    for (const image of page.querySelectorAll(".figures img")) {
      // All shrink or grow by one factor: a centimetre is as long in each of them.
      const width = Number(image.getAttribute("width"));
      image.parentElement.style.flex = `${width} 1 ${0.42 * width}px`;
      image.parentElement.style.maxWidth = `${width}px`;
    }
    const section = page.querySelector(".viewer");
    if (section) requestAnimationFrame(() => setTimeout(() => show(section))); // once the pictures are on the screen
  }

  function close() {
    if (!overview.hidden) return;
    leave();
    page.replaceChildren();
    page.hidden = true;
    overview.hidden = false;
    document.title = title;
    const back = left ?? { scroll: 0, focus: null };
    left = null;
    window.scrollTo({ top: back.scroll, behavior: "instant" });
    (back.focus?.closest?.("table") ? back.focus : document.getElementById("cases")).focus({ preventScroll: true });
  }

  function route() {
    const match = /^#case-(\d+)$/.exec(location.hash);
    const template = match && document.getElementById(`template-${match[1]}`);
    if (template) open(Number(match[1]), template);
    else close();
  }

  // --- viewer ----------------------------------------------------------------

  let library = null; // a promise, once a viewer is asked for
  let shower = null; // NiiVue, one for all cases: browsers give a page few drawing contexts
  let asked = 0;

  const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

  async function block(name) {
    if (!document.getElementById(name) && document.readyState === "loading") {
      await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
    }
    return document.getElementById(name).textContent;
  }

  function run(source) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${source} cannot be loaded`));
      document.head.append(script);
    });
  }

  async function load() {
    const packed = new Blob([bytes(await block("niivue"))]);
    const text = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).blob();
    const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    await run(address);
    URL.revokeObjectURL(address);
    return window.niivue;
  }

  const delivered = new Map();
  window.stseg3dVolumes = (n, data) => delivered.set(n, data);

  async function volumes(n) {
    if (!linked) return JSON.parse(await block(`volumes-${n}`));
    if (!delivered.has(n)) await run(`${linked}/${n}.js`);
    return delivered.get(n);
  }

  async function start() {
    const { Niivue } = await (library ??= load());
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    const nv = new Niivue({
      backColor: [0.04, 0.047, 0.063, 1],
      crosshairColor: [0.51, 0.73, 0.98, 0.8],
      crosshairWidthUnit: "mm",
      dragAndDropEnabled: false,
      fontColor: [0.77, 0.8, 0.84, 1],
      isRadiologicalConvention: true,
      sagittalNoseLeft: true, // as in the pictures
      isSliceMM: true, // else slices show no boxes
      loadingText: "",
      logLevel: "error",
      multiplanarForceRender: true,
      multiplanarLayout: 0,
      meshXRay: 0.6, // boxes shine through what is around them
      renderOverlayBlend: 1,
      show3Dcrosshair: false,
      clipPlaneHotKey: "",
      viewModeHotKey: "",
    });
    // Grey as it is in slices; clear in the solid view, so that the object is seen in it.
    nv.addColormap("glass", { R: [0, 255], G: [0, 255], B: [0, 255], A: [0, 45], I: [0, 255] });
    const outlines = document.createElement("canvas");
    outlines.setAttribute("aria-hidden", "true");
    const holder = document.createElement("div");
    holder.append(canvas, outlines);
    page.querySelector(".stage").append(holder);
    await nv.attachToCanvas(canvas);
    canvas.addEventListener("keydown", (event) => move(nv, event));
    const boxes = { shown: true, corners: [], colour: [] };
    const draw = nv.drawScene.bind(nv);
    nv.drawScene = () => {
      const said = draw();
      outline(nv, outlines, boxes);
      return said;
    };
    return { nv, canvas, holder, boxes };
  }

  // Where slices cut the boxes. NiiVue draws meshes on slices only as far as they face the eye, and a box's faces are seen edge on.
  function outline(nv, canvas, boxes) {
    if (canvas.width !== nv.canvas.width || canvas.height !== nv.canvas.height) Object.assign(canvas, { width: nv.canvas.width, height: nv.canvas.height });
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (!boxes.shown) return;
    pen.strokeStyle = `rgb(${boxes.colour.join(" ")})`;
    pen.lineWidth = 1.5 * window.devicePixelRatio;
    for (const tile of nv.screenSlices.filter((one) => one.axCorSag <= 2)) {
      const [left, top, width, height] = tile.leftTopWidthHeight;
      pen.save();
      pen.beginPath();
      pen.rect(left, top, width, height);
      pen.clip();
      for (const corners of boxes.corners) {
        const points = cut(corners, tile).map(([a, b]) => [
          left + ((a - tile.leftTopMM[0]) / tile.fovMM[0]) * width,
          top + height - ((b - tile.leftTopMM[1]) / tile.fovMM[1]) * height,
        ]);
        pen.beginPath();
        points.forEach((point) => pen.lineTo(...point));
        pen.closePath();
        pen.stroke();
      }
      pen.restore();
    }
  }

  // The polygon, in the slice's two axes, in which a slice cuts a box; corners are numbered in binary.
  function cut(corners, tile) {
    const [x, y, z] = [[0, 1, 2], [0, 2, 1], [1, 2, 0]][tile.axCorSag];
    const [x0, y0, z0, byX, byY] = tile.AxyzMxy;
    const turned = corners.map((c) => [c[x], c[y], c[z] - (z0 + byY * (c[y] - y0) - byX * (c[x] - x0))]);
    const points = [];
    for (const bit of [1, 2, 4]) {
      for (let n = 0; n < 8; n += 1) {
        const [a, b] = [turned[n], turned[n | bit]];
        if (n & bit || a[2] > 0 === b[2] > 0) continue;
        const t = a[2] / (a[2] - b[2]);
        points.push([a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])]);
      }
    }
    const [mx, my] = [0, 1].map((axis) => points.reduce((sum, p) => sum + p[axis], 0) / points.length);
    return points.sort((p, q) => Math.atan2(p[1] - my, p[0] - mx) - Math.atan2(q[1] - my, q[0] - mx));
  }

  function move(nv, event) {
    const steps = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    if (nv.opts.sliceType === nv.sliceTypeRender) {
      nv.setRenderAzimuthElevation(nv.scene.renderAzimuth + 10 * step[0], nv.scene.renderElevation + 10 * (step[1] + step[2]));
    } else nv.moveCrosshairInVox(...step);
  }

  function table(colours, count, alpha) {
    const ids = [...Array(count + 1).keys()];
    const channel = (c) => ids.map((id) => (id ? colours[(id - 1) % colours.length][c] : 0));
    return { R: channel(0), G: channel(1), B: channel(2), A: ids.map((id) => (id ? alpha : 0)), I: ids, labels: ids.map(String) };
  }

  const address = (base64, kept) => {
    kept.push(URL.createObjectURL(new Blob([bytes(base64)])));
    return kept.at(-1);
  };

  async function fill({ nv, boxes }, data) {
    const kept = [];
    for (const mesh of [...nv.meshes]) nv.removeMesh(mesh);
    const [low, high] = data.window;
    const layers = [{ url: address(data.image, kept), name: "image.nii.gz", colormap: "glass", cal_min: low, cal_max: high }];
    layers.push({ url: address(data.labels, kept), name: "labels.nii.gz", opacity: 0.55 });
    if (data.rough) layers.push({ url: address(data.rough, kept), name: "rough.nii.gz", opacity: 0 });
    await nv.loadVolumes(layers);
    nv.volumes[1].setColormapLabel(table(data.labelColours, data.labelCount, 255));
    if (data.rough) nv.volumes[2].setColormapLabel(table([data.roughColour], 1, 255));
    nv.updateGLVolume();
    Object.assign(boxes, { shown: true, corners: data.boxes ?? [], colour: data.boxColour });
    if (data.edges) {
      await nv.loadMeshes([{ url: address(data.edges, kept), name: "edges.mz3", rgba255: [...data.boxColour, 255] }]);
      nv.setMeshShader(nv.meshes[0].id, "Flat");
    }
    nv.opts.meshThicknessOn2D = 0; // slices have their outlines
    nv.opts.crosshairWidth = 0.3 * data.thickness;
    nv.scene.crosshairPos = nv.mm2frac(data.focus);
    nv.drawScene();
    kept.forEach((one) => URL.revokeObjectURL(one));
  }

  function control(section, { nv, boxes }, data) {
    const types = { multi: nv.sliceTypeMultiplanar, axial: nv.sliceTypeAxial, coronal: nv.sliceTypeCoronal, sagittal: nv.sliceTypeSagittal, render: nv.sliceTypeRender };
    const views = [...section.querySelectorAll("[data-view]")];
    const pick = (button) => {
      nv.setSliceType(types[button.dataset.view]);
      for (const other of views) other.setAttribute("aria-pressed", String(other === button));
    };
    for (const button of views) {
      button.hidden = Boolean(data.flat);
      button.addEventListener("click", () => pick(button));
    }
    nv.setMultiplanarLayout(nv.canvas.clientWidth < nv.canvas.clientHeight * 1.3 ? 2 : 0); // two rows where it is narrow
    pick(views.find((button) => button.dataset.view === (data.flat ? "axial" : "multi")));
    const set = {
      labels: (on) => nv.setOpacity(1, on ? 0.55 : 0),
      rough: (on) => nv.setOpacity(2, on ? 0.5 : 0),
      boxes: (on) => {
        boxes.shown = on;
        nv.meshes.forEach((mesh) => nv.setMeshProperty(mesh.id, "visible", on));
        nv.drawScene();
      },
    };
    const there = { labels: data.labelCount > 0, rough: data.rough, boxes: data.edges };
    for (const button of section.querySelectorAll("[data-layer]")) {
      const layer = button.dataset.layer;
      button.hidden = !there[layer];
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(on));
        set[layer](on);
      });
    }
  }

  async function show(section) {
    const mine = ++asked;
    const stage = section.querySelector(".stage");
    const say = stage.querySelector("p");
    try {
      if (!document.createElement("canvas").getContext("webgl2")) {
        throw new Error("this browser draws no WebGL 2, which the viewer needs");
      }
      const data = await volumes(Number(section.dataset.case));
      if (mine !== asked) return;
      shower ??= start().catch((error) => { shower = null; throw error; });
      const viewer = await shower;
      const { nv, canvas, holder } = viewer;
      if (mine !== asked) return;
      stage.append(holder);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${stage.dataset.label}: slices in three planes and a solid view, with segmentation and boxes`);
      await fill(viewer, data);
      if (mine !== asked) return;
      control(section, viewer, data);
      nv.resizeListener();
      say.hidden = true;
      section.dataset.ready = "";
    } catch (error) {
      if (mine === asked) say.textContent = `The volumes cannot be shown: ${error.message}. The pictures above are complete.`;
    }
  }

  function leave() {
    asked += 1;
  }

  window.addEventListener("hashchange", route);
  route();
})();
