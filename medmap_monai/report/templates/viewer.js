"use strict";
(() => {
  const cases = JSON.parse(document.getElementById("viewer-data").textContent);
  const $ = (id) => document.getElementById(id);
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`);
  const status = $("viewer-status");
  const WRONG = { missed: [230, 159, 0], extra: [86, 180, 233], other: [204, 121, 167] };
  const cache = new Map();
  let view = null; // the case on show with its unpacked volumes

  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const unpack = (text) => {
    const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer().then((buffer) => new Uint8Array(buffer));
  };
  const volume = (index, kind, name) => {
    const owner = kind === "images" && cases[index].images_from !== undefined ? cases[index].images_from : index;
    const id = `${owner}/${kind}/${name}`;
    if (!cache.has(id)) cache.set(id, unpack(cases[owner][kind][name]));
    return cache.get(id);
  };
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

  const subsetOf = (study) => {
    const have = study.modalities.map((m) => m.name).filter((m) => document.querySelector(`input[name="viewer-have"][value="${CSS.escape(m)}"]`).checked);
    return study.subsets.find((s) => s.name === have.join("+"));
  };

  // [width, height, number of slices, voxel index of (column, row, slice), aspect] of a plane
  const geometry = (study, plane) => {
    const [x, y, z] = study.shape;
    const [sx, sy, sz] = study.spacing;
    if (plane === 0) return { w: x, h: y, n: z, at: (c, r, k) => c + x * (r + y * k), stretch: sy / sx };
    if (plane === 1) return { w: x, h: z, n: y, at: (c, r, k) => c + x * (k + y * (z - 1 - r)), stretch: sz / sx };
    return { w: y, h: z, n: x, at: (c, r, k) => k + x * (c + y * (z - 1 - r)), stretch: sz / sy };
  };

  const paint = (canvas, g, colour) => {
    canvas.width = g.w;
    canvas.height = g.h;
    canvas.style.aspectRatio = `${g.w} / ${g.h * g.stretch}`;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(g.w, g.h);
    const k = Number($("viewer-slice").value);
    for (let r = 0, p = 0; r < g.h; r++) {
      for (let c = 0; c < g.w; c++, p += 4) {
        const [red, green, blue] = colour(g.at(c, r, k));
        picture.data[p] = red;
        picture.data[p + 1] = green;
        picture.data[p + 2] = blue;
        picture.data[p + 3] = 255;
      }
    }
    context.putImageData(picture, 0, 0);
  };

  const draw = () => {
    if (!view) return;
    const { study, image, reference, prediction } = view;
    const g = geometry(study, Number(chosen("viewer-plane").value));
    const opacity = Number($("viewer-opacity").value) / 100;
    const tints = [];
    for (const c of study.classes) tints[c.index] = rgb(c.colour);
    const over = (grey, tint) => (tint ? tint.map((t) => grey + (t - grey) * opacity) : [grey, grey, grey]);
    paint($("viewer-reference"), g, (i) => over(image[i], tints[reference[i]]));
    paint($("viewer-prediction"), g, (i) => over(image[i], tints[prediction[i]]));
    paint($("viewer-difference"), g, (i) => {
      if (reference[i] === prediction[i]) return over(image[i] * 0.75, null);
      return prediction[i] === 0 ? WRONG.missed : reference[i] === 0 ? WRONG.extra : WRONG.other;
    });
    $("viewer-slice-text").textContent = `${Number($("viewer-slice").value) + 1} of ${g.n}`;
  };

  const setPlane = () => {
    const study = cases[view.index];
    const plane = Number(chosen("viewer-plane").value);
    const g = geometry(study, plane);
    const slider = $("viewer-slice");
    slider.max = g.n - 1;
    slider.value = plane === 0 ? study.slice : Math.floor(g.n / 2);
    draw();
  };

  const describe = (study, subset) => {
    const regions = Object.keys(subset.dice);
    $("viewer-caption").textContent = `Prediction from ${subset.label}`;
    $("viewer-dice").innerHTML = "";
    const table = $("viewer-dice");
    const caption = table.createCaption();
    caption.textContent = `Dice (%) of this case (n = 1) from ${subset.label}`;
    const head = table.createTHead().insertRow();
    const row = table.createTBody().insertRow();
    for (const region of regions) {
      const th = document.createElement("th");
      th.scope = "col";
      th.textContent = region;
      head.append(th);
      row.insertCell().textContent = (100 * subset.dice[region]).toFixed(1);
    }
    table.dataset.subset = subset.name;
  };

  const refresh = async () => {
    const index = Number(chosen("viewer-case") ? chosen("viewer-case").value : 0);
    const study = cases[index];
    const subset = subsetOf(study);
    const modality = chosen("viewer-image").value;
    const boxes = [...document.querySelectorAll('input[name="viewer-have"]')];
    const on = boxes.filter((box) => box.checked);
    for (const box of boxes) box.disabled = on.length === 1 && box.checked; // at least one modality
    if (!subset) {
      status.textContent = "This subset was not evaluated.";
      return;
    }
    const moved = !view || view.index !== index;
    const [image, reference, prediction] = await Promise.all([
      volume(index, "images", modality),
      volume(index, "labels", "reference"),
      volume(index, "labels", subset.name),
    ]);
    view = { index, study, subset, modality, image, reference, prediction };
    status.textContent = "";
    describe(study, subset);
    if (moved) setPlane();
    else draw();
    if (scene) await scene.show();
  };

  const pill = (type, name, value, label, checked) => {
    const node = document.createElement("label");
    node.className = "pill";
    const input = document.createElement("input");
    Object.assign(input, { type, name, value, checked });
    input.addEventListener("change", refreshSafely);
    node.append(input, label);
    return node;
  };
  const fill = () => {
    const study = cases[Number(chosen("viewer-case") ? chosen("viewer-case").value : 0)];
    for (const id of ["viewer-have", "viewer-image"]) for (const old of document.querySelectorAll(`#${id} .pill`)) old.remove();
    study.modalities.forEach((m, i) => {
      $("viewer-have").append(pill("checkbox", "viewer-have", m.name, m.label, true));
      $("viewer-image").append(pill("radio", "viewer-image", m.name, m.label, i === 0));
    });
    $("viewer-legend").replaceChildren(
      ...study.classes.map((c) => {
        const node = document.createElement("span");
        const swatch = document.createElement("i");
        swatch.className = "swatch";
        swatch.style.background = c.colour;
        node.append(swatch, c.name);
        return node;
      }),
      study.thinned > 1 ? ` every ${study.thinned}. voxel is shown` : "",
    );
  };

  const fail = (error) => {
    status.textContent = `The viewer cannot run in this browser (${error.message}). The pictures above show the same case.`;
  };
  const refreshSafely = () => refresh().catch(fail);

  // 3-D with NiiVue, unpacked and started only when asked for
  let scene = null;
  const nifti = (study, data) => {
    const buffer = new ArrayBuffer(352 + data.length);
    const v = new DataView(buffer);
    const [x, y, z] = study.shape;
    const [sx, sy, sz] = study.spacing;
    v.setInt32(0, 348, true);
    [3, x, y, z, 1, 1, 1, 1].forEach((n, i) => v.setInt16(40 + 2 * i, n, true));
    v.setInt16(70, 2, true); // uint8
    v.setInt16(72, 8, true);
    [1, sx, sy, sz, 1, 1, 1, 1].forEach((n, i) => v.setFloat32(76 + 4 * i, n, true));
    v.setFloat32(108, 352, true);
    v.setFloat32(112, 1, true);
    v.setUint8(123, 2); // mm
    v.setInt16(254, 1, true); // sform: axes towards left, back and top
    [-sx, 0, 0, (x * sx) / 2, 0, -sy, 0, (y * sy) / 2, 0, 0, sz, (-z * sz) / 2].forEach((n, i) => v.setFloat32(280 + 4 * i, n, true));
    [110, 43, 49, 0].forEach((n, i) => v.setUint8(344 + i, n)); // "n+1"
    new Uint8Array(buffer, 352).set(data);
    return buffer;
  };
  // middle of the ground truth as a fraction of the volume, axes towards right, front and top
  const centre = (study, reference) => {
    const [x, y, z] = study.shape;
    const sums = [0, 0, 0, 0];
    for (let i = 0; i < reference.length; i++) {
      if (reference[i] === 0) continue;
      sums[0] += i % x;
      sums[1] += Math.floor(i / x) % y;
      sums[2] += Math.floor(i / (x * y));
      sums[3] += 1;
    }
    if (sums[3] === 0) return [0.5, 0.5, 0.5];
    const at = [x, y, z].map((n, axis) => (sums[axis] / sums[3] + 0.5) / n);
    return [1 - at[0], 1 - at[1], at[2]];
  };
  const openScene = async () => {
    const say = $("viewer-3d-status");
    if (!document.createElement("canvas").getContext("webgl2")) {
      say.textContent = "This browser offers no WebGL 2; the slices above need none.";
      return;
    }
    $("viewer-3d-open").disabled = true;
    say.textContent = "Starting…";
    if (!window.niivue) {
      const code = document.createElement("script");
      code.textContent = new TextDecoder().decode(await unpack($("niivue-gz").textContent.trim()));
      document.head.append(code);
    }
    $("viewer-3d").hidden = false;
    const nv = new window.niivue.Niivue({
      backColor: [0.04, 0.05, 0.07, 1],
      crosshairColor: [1, 1, 1, 0.55],
      clipPlaneColor: [1, 1, 1, 0],
      dragAndDropEnabled: false,
      isNearestInterpolation: true,
      isRadiologicalConvention: true,
      logLevel: "error",
      multiplanarLayout: 2, // a grid of three planes
      multiplanarShowRender: 1, // and the volume
    });
    await nv.attachToCanvas($("viewer-3d-canvas"));
    nv.setSliceType(nv.sliceTypeMultiplanar);
    const load = async (name, data) => window.niivue.NVImage.loadFromFile({ file: new File([nifti(view.study, data)], `${name}.nii`), name: `${name}.nii` });
    scene = {
      shown: "",
      index: -1,
      show: async () => {
        const truth = chosen("viewer-3d-labels").value === "reference";
        const wanted = `${view.index}/${view.modality}/${truth ? "" : view.subset.name}`;
        if (scene.shown === wanted) return;
        scene.shown = wanted;
        for (const old of [...nv.volumes]) nv.removeVolume(old);
        const image = await load("image", view.image);
        const labels = await load("labels", truth ? view.reference : view.prediction);
        nv.addVolume(image);
        const last = Math.max(...view.study.classes.map((c) => c.index));
        const table = { R: [], G: [], B: [], A: [], I: [], labels: [] };
        for (let i = 0; i <= last; i++) {
          const known = view.study.classes.find((c) => c.index === i);
          const [red, green, blue] = known ? rgb(known.colour) : [0, 0, 0];
          table.R.push(red);
          table.G.push(green);
          table.B.push(blue);
          table.A.push(known ? 255 : 0);
          table.I.push(i);
          table.labels.push(known ? known.name : "");
        }
        labels.setColormapLabel(table);
        labels.opacity = 0.55;
        nv.addVolume(labels);
        if (scene.index !== view.index) {
          scene.index = view.index;
          nv.opts.crosshairWidth = 0.004 * Math.max(...view.study.shape.map((n, i) => n * view.study.spacing[i]));
          nv.scene.crosshairPos = centre(view.study, view.reference);
          nv.setClipPlane([0.05, 180, 25]);
        }
        nv.updateGLVolume();
        say.textContent = truth ? "Ground truth" : `Prediction from ${view.subset.label}`;
      },
    };
    await scene.show();
  };
  if ($("viewer-3d-open")) {
    $("viewer-3d-open").addEventListener("click", () => {
      openScene().catch((error) => {
        $("viewer-3d-status").textContent = `3-D could not start (${error.message}).`;
      });
    });
  }

  for (const input of document.querySelectorAll('input[name="viewer-3d-labels"]')) input.addEventListener("change", refreshSafely);

  $("viewer-slice").addEventListener("input", draw);
  $("viewer-opacity").addEventListener("input", draw);
  for (const input of document.querySelectorAll('input[name="viewer-plane"]')) input.addEventListener("change", setPlane);
  for (const input of document.querySelectorAll('input[name="viewer-case"]')) {
    input.addEventListener("change", () => {
      fill();
      refreshSafely();
    });
  }
  fill();
  refreshSafely();
})();
