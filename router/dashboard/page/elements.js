/**
 * Elements, made of tags, attributes and texts, and put in the place of those that are there.
 *
 * What a server says becomes a text or an attribute's value, never markup. Only what differs is touched, so that focus,
 * selection and scrolling outlive a refresh; listeners therefore sit on the document and read `data-do`.
 */

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Attributes that are null or false are left out; children that are null or false too. */
export function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** Makes `place` hold these children. */
export function show(place, ...children) {
  const wanted = place.cloneNode(false);
  adopt(wanted, children);
  alignChildren(place, wanted);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  adopt(element, children);
  return element;
}

function adopt(element, children) {
  const isThere = (child) => child !== null && child !== undefined && child !== false;
  element.append(...children.flat(Infinity).filter(isThere));
}

function alignChildren(old, wanted) {
  const olds = [...old.childNodes];
  const wanteds = [...wanted.childNodes];
  for (const extra of olds.slice(wanteds.length)) {
    extra.remove();
  }
  wanteds.forEach((node, index) => {
    const there = olds[index];
    if (there === undefined) {
      old.append(node);
    } else if (isSame(there, node)) {
      align(there, node);
    } else {
      there.replaceWith(node);
    }
  });
}

function isSame(old, wanted) {
  return old.nodeName === wanted.nodeName && old.dataset?.key === wanted.dataset?.key;
}

function align(old, wanted) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== wanted.data) {
      old.data = wanted.data;
    }
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) {
      old.removeAttribute(name);
    }
  }
  for (const { name, value } of [...wanted.attributes]) {
    if (old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
    }
  }
  alignChildren(old, wanted);
}
