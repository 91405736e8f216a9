// What the browser keeps for the page. Where it keeps nothing, because it is told so, things are known until the page is left.

function store(of) {
  const memory = new Map();
  return {
    get(name) {
      try {
        return of().getItem(name) ?? memory.get(name) ?? '';
      } catch {
        return memory.get(name) ?? '';
      }
    },
    set(name, text) {
      memory.set(name, text);
      try {
        of().setItem(name, text);
      } catch { /* then not */ }
    },
  };
}

// forTab is what is forgotten when the tab is closed, forGood what stays. Both give '' for what they do not have.
export const forTab = store(() => sessionStorage);
export const forGood = store(() => localStorage);
