"use strict";
// The page of a terminal: xterm.js on one side, one WebSocket on the other (messages: see messages.py).
(() => {
  const PROTOCOL = "fairlead.terminal.v1";
  const PIECE = 16 * 1024; // of input; a message has at most 64 KiB
  const nonce = document.currentScript.nonce;
  const bar = document.getElementById("bar");
  const words = document.getElementById("words");
  const again = document.getElementById("again");

  // The emulator writes its colours and sizes into style elements, which the page's policy allows by nonce.
  const createElement = document.createElement.bind(document);
  document.createElement = (name, options) => {
    const element = createElement(name, options);
    if (name.toLowerCase() === "style") element.nonce = nonce;
    return element;
  };

  const openLink = (event, address) => {
    const url = URL.parse ? URL.parse(address) : new URL(address);
    if (url && (url.protocol === "http:" || url.protocol === "https:")) {
      window.open(url.href, "_blank", "noopener,noreferrer");
    }
  };
  const terminal = new Terminal({
    allowProposedApi: true, // for the widths of characters
    cursorBlink: true,
    fontFamily: "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace",
    fontSize: 15, // smaller ones lose their underscores to the row below in some browsers
    macOptionClickForcesSelection: true,
    rightClickSelectsWord: true,
    scrollback: 10000,
    // A program names the text and the address of such a link apart: the address is asked about.
    linkHandler: {
      activate: (event, address) => {
        if (window.confirm("Open this address?\n\n" + address)) openLink(event, address);
      },
    },
  });
  const fit = new FitAddon.FitAddon();
  terminal.loadAddon(fit);
  terminal.loadAddon(new WebLinksAddon.WebLinksAddon(openLink));
  terminal.loadAddon(new Unicode11Addon.Unicode11Addon());
  terminal.unicode.activeVersion = "11";
  // Programs may set the clipboard (OSC 52), and never read it.
  terminal.loadAddon(new ClipboardAddon.ClipboardAddon(undefined, {
    readText: () => "",
    writeText: (selection, text) => navigator.clipboard?.writeText(text).catch(() => {}),
  }));
  terminal.open(document.getElementById("terminal"));
  window.terminal = terminal;

  let socket = null;
  let shown = 0; // bytes of output that were drawn
  let room = 0; // bytes of input that may be sent, in all
  let sent = 0;
  let isLoadedAnew = false; // the page is, instead of the socket alone
  let waiting = []; // input that has no room yet

  const say = (message) => {
    if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  };
  const size = () => {
    const screen = document.querySelector(".xterm-screen");
    return {
      columns: terminal.cols,
      rows: terminal.rows,
      width: screen ? Math.round(screen.clientWidth) : 0,
      height: screen ? Math.round(screen.clientHeight) : 0,
    };
  };
  const flush = () => {
    while (waiting.length && sent < room && socket && socket.readyState === WebSocket.OPEN) {
      const piece = waiting[0].subarray(0, Math.min(PIECE, room - sent));
      waiting[0] = waiting[0].subarray(piece.length);
      if (!waiting[0].length) waiting.shift();
      sent += piece.length;
      socket.send(piece);
    }
  };
  const input = (bytes) => {
    if (!socket || socket.readyState !== WebSocket.OPEN) return;
    waiting.push(bytes);
    flush();
  };
  const encoder = new TextEncoder();
  terminal.onData((text) => input(encoder.encode(text)));
  terminal.onBinary((text) => input(Uint8Array.from(text, (one) => one.charCodeAt(0))));
  terminal.onResize(() => say({ resize: size() }));
  terminal.onTitleChange((title) => { document.title = title || document.title; });

  const copy = () => {
    const text = terminal.getSelection();
    if (text) navigator.clipboard?.writeText(text).catch(() => document.execCommand("copy"));
  };
  terminal.attachCustomKeyEventHandler((event) => {
    if (!event.ctrlKey || !event.shiftKey || event.altKey || event.metaKey) return true;
    if (event.code === "KeyC") {
      if (event.type === "keydown") copy();
      event.preventDefault();
      return false;
    }
    return event.code !== "KeyV"; // the browser pastes, and the emulator gets the text
  });

  const end = (text) => {
    socket = null;
    waiting = [];
    words.textContent = text;
    bar.hidden = false;
    fit.fit();
    again.focus();
  };
  const connect = () => {
    bar.hidden = true;
    fit.fit();
    shown = sent = room = 0;
    waiting = [];
    let farewell = "";
    isLoadedAnew = true; // until it is open: the login may have ended, or this version of the page
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const mine = socket = new WebSocket(`${scheme}//${location.host}/socket`, PROTOCOL);
    mine.binaryType = "arraybuffer";
    mine.onopen = () => { isLoadedAnew = false; say({ open: size() }); terminal.focus(); };
    mine.onmessage = (event) => {
      if (typeof event.data !== "string") {
        const bytes = new Uint8Array(event.data);
        terminal.write(bytes, () => {
          if (mine !== socket) return;
          shown += bytes.length;
          say({ shown });
        });
        return;
      }
      const said = JSON.parse(event.data);
      if ("room" in said) { room = said.room; flush(); }
      if ("exit" in said) farewell = said.exit;
    };
    mine.onclose = (event) => {
      if (mine !== socket) return;
      isLoadedAnew ||= event.code === 1008;
      const lost = "The connection was lost, and the shell with it.";
      const reason = event.reason ? `The terminal was closed: ${event.reason}.` : lost;
      // Behind all output that is still being drawn.
      terminal.write("", () => end(farewell || reason));
    };
  };
  again.addEventListener("click", () => {
    if (isLoadedAnew) return location.reload();
    terminal.write("\x1b[!p\r\n"); // a program that was cut off left its modes
    connect();
  });

  new ResizeObserver(() => fit.fit()).observe(document.getElementById("terminal"));
  connect();
})();
