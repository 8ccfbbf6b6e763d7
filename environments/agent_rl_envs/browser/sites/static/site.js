// What the pages do by themselves: ask before what cannot be undone, suggest, show fields that others call for, and
// pick days. Without it all forms work.
(() => {
  const make = (tag, text = "", attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  const ask = (form) => {
    const dialog = make("dialog");
    const [yes, no] = [make("button", "Yes"), make("button", "No")];
    yes.addEventListener("click", () => form.submit());
    no.addEventListener("click", () => dialog.remove());
    dialog.append(make("p", form.dataset.confirm), yes, no);
    document.body.append(dialog);
    dialog.showModal();
  };

  const suggest = (field) => {
    const list = make("ul", "", { class: "suggestions" });
    field.closest("p").append(list);
    field.addEventListener("input", async () => {
      const typed = field.value;
      const answer = await fetch(`${field.dataset.suggest}?q=${encodeURIComponent(typed)}`);
      const found = await answer.json();
      if (typed !== field.value) return;
      list.replaceChildren(...found.filter((text) => text !== typed).map((text) => {
        const item = make("li");
        const button = make("button", text, { type: "button" });
        button.addEventListener("click", () => {
          field.value = text;
          list.replaceChildren();
        });
        item.append(button);
        return item;
      }));
    });
  };

  // data-when="name=value|value": shown when the field of that name has one of the values.
  const conditional = (part) => {
    const [name, values] = part.dataset.when.split("=");
    const form = part.closest("form");
    const update = () => {
      const value = new FormData(form).get(name) ?? "";
      part.hidden = !values.split("|").includes(value);
    };
    form.addEventListener("change", update);
    update();
  };

  const pickDay = (field) => {
    const open = make("button", "Pick a day", { type: "button", "aria-label": `Pick ${field.dataset.pick}` });
    const grid = make("span", "", { class: "dates" });
    let month = "";
    const show = () => {
      const [year, number] = month.split("-").map(Number);
      const days = new Date(Date.UTC(year, number, 0)).getUTCDate();
      const move = (by) => () => {
        month = new Date(Date.UTC(year, number - 1 + by, 1)).toISOString().slice(0, 7);
        show();
      };
      const [before, after] = [make("button", "Earlier", { type: "button" }), make("button", "Later", { type: "button" })];
      before.addEventListener("click", move(-1));
      after.addEventListener("click", move(1));
      const buttons = Array.from({ length: days }, (_, at) => {
        const day = `${month}-${String(at + 1).padStart(2, "0")}`;
        const button = make("button", String(at + 1), { type: "button", "aria-label": day });
        button.addEventListener("click", () => {
          field.value = day;
          grid.replaceChildren();
        });
        return button;
      });
      grid.replaceChildren(make("span", ` ${month} `), before, after, ...buttons);
    };
    open.addEventListener("click", () => {
      if (grid.childNodes.length) return grid.replaceChildren();
      month = (field.value || field.dataset.today).slice(0, 7);
      show();
    });
    field.closest("p").append(open, grid);
  };

  document.addEventListener("submit", (event) => {
    if (!event.target.dataset.confirm) return;
    event.preventDefault();
    ask(event.target);
  });
  document.querySelectorAll("input[data-suggest]").forEach(suggest);
  document.querySelectorAll("[data-when]").forEach(conditional);
  document.querySelectorAll("input[data-pick]").forEach(pickDay);
})();
