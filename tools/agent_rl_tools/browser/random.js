// Seeded randomness for a page: %SEED% is replaced. Each document has its own stream, by its address.
(() => {
  let state = %SEED% >>> 0;
  for (const letter of location.pathname) state = (Math.imul(state ^ letter.charCodeAt(0), 0x01000193) + 1) >>> 0;
  const next = () => {  // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (z ^ (z >>> 14)) >>> 0;
  };
  Math.random = () => (next() * 0x200000 + (next() >>> 11)) / 0x20000000000000;
  const fill = (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = next();
    return array;
  };
  if (globalThis.Crypto) {
    Crypto.prototype.getRandomValues = fill;
    Crypto.prototype.randomUUID = () => {
      const bytes = fill(new Uint8Array(16));
      bytes[6] = (bytes[6] & 0x0f) | 0x40;
      bytes[8] = (bytes[8] & 0x3f) | 0x80;
      const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
    };
  }
})();
