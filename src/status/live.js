// Swaps <main> whenever the daemon has something new. Without it the page reloads itself now and then.
const main = document.querySelector("main");
const live = document.querySelector("#live");
let source;
const watch = () => {
  source = new EventSource("/events");
  source.onopen = () => { live.textContent = "Live"; live.className = "on"; };
  source.onerror = () => { live.textContent = "Connection lost, trying again…"; live.className = "off"; };
  source.onmessage = (event) => {
    const open = [...main.querySelectorAll("details[open]")].map((d) => d.id);
    main.innerHTML = event.data;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  };
};
// A hidden tab watches nothing: the daemon may sleep.
document.addEventListener("visibilitychange", () => {
  source?.close();
  if (!document.hidden) watch();
});
if (!document.hidden) watch();
