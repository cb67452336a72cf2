"""How the page is drawn, and what its buttons do; the work is page.session's."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from errors import InputError
from metrics.look import STYLE
from page import show
from page.session import Made, Session, Stopped, Voice
from page.settings import SETTINGS, Setting, initial, overrides
from page.studio import Studio
from page.voice import synthesiser

_LOG = logging.getLogger(__name__)
_AT_ONCE = 8
"""Visitors whose calls are taken in; the networks serve them one after another."""
_WAITING = 24
_FORGET_S = 3600
"""Age at which files go that a visitor left behind without saying good-bye."""
_THEME_FONT = ["system-ui", "sans-serif"]  # nothing is fetched from elsewhere
_SOUND, _TEXT = "sound", "text"
"""Tabs of the voice."""


class Page:
    """The page over one studio."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self._sessions: dict[str, Session] = {}
        self._known = threading.Lock()
        self._start = initial(studio.default)
        self._shown = [setting for setting in SETTINGS if setting.key in self._start]
        with gr.Blocks(
            title="HyperLips", analytics_enabled=False, delete_cache=(_FORGET_S, _FORGET_S), fill_width=True
        ) as self.blocks:
            self._draw()

    def launch(self, host: str, port: int | None) -> None:
        """Serve the page, until a signal."""
        self.blocks.queue(default_concurrency_limit=_AT_ONCE, max_size=_WAITING)
        self.blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=f"{self.studio.limits.megabytes}mb",
            theme=gr.themes.Default(font=_THEME_FONT, font_mono=["ui-monospace", "monospace"]),
            css=STYLE,
            footer_links=[],
            ssr_mode=False,
            show_error=True,
        )

    def _draw(self) -> None:
        gr.HTML(show.sheet("<h1>HyperLips</h1>Make the face in a video or picture speak new audio."))
        self.choice, self.source = gr.State(0), gr.State(_SOUND)
        with gr.Row():
            with gr.Column(min_width=320):
                self._draw_face()
                self._draw_voice()
                with gr.Accordion("Settings", open=False):
                    self.settings = [_widget(setting, self._start[setting.key]) for setting in self._shown]
                with gr.Row():
                    self.look_button = gr.Button("Preview", min_width=60)
                    self.make_button = gr.Button("Make video", variant="primary", min_width=60)
                    self.stop_button = gr.Button("Stop", variant="stop", interactive=False, min_width=60)
                gr.HTML(show.limits(self.studio.limits))
            with gr.Column(min_width=320, scale=2):
                self.status = gr.HTML(show.note("Give a face and a voice."), elem_id="status")
                self.moment = gr.Image(
                    label="Preview: the loudest moment", visible=False, interactive=False, buttons=[], elem_id="moment"
                )
                with gr.Row():
                    self.before_video = gr.Video(label="Source", visible=False, interactive=False, buttons=[])
                    self.before_picture = gr.Image(
                        label="Source", visible=False, interactive=False, type="filepath", buttons=[]
                    )
                    self.result = gr.Video(label="Result", visible=False, interactive=False, buttons=[])
                self.download = gr.DownloadButton("Download the video", visible=False)
                self.measured = gr.HTML(visible=False)
                self.command = gr.Code(
                    label="The same on the command line",
                    language="shell",
                    lines=1,
                    wrap_lines=True,
                    show_line_numbers=False,
                    interactive=False,
                    visible=False,
                )
        self._connect()

    def _draw_face(self) -> None:
        with gr.Tabs():
            with gr.Tab("Face: video"):
                self.video = gr.Video(
                    label="A face",
                    show_label=False,
                    sources=["upload", "webcam"],
                    webcam_options=gr.WebcamOptions(mirror=False),
                    height=300,
                    elem_id="face-video",
                )
            with gr.Tab("Face: picture"):
                self.picture = gr.Image(
                    label="A face",
                    show_label=False,
                    sources=["upload", "webcam"],
                    type="filepath",
                    image_mode=None,
                    webcam_options=gr.WebcamOptions(mirror=False),
                    height=300,
                    elem_id="face-picture",
                )
        self.faces = gr.Gallery(
            label="Whose mouth?", visible=False, columns=4, height=130, allow_preview=False, interactive=False
        )

    def _draw_voice(self) -> None:
        reader = synthesiser()
        with gr.Tabs():
            with gr.Tab("Voice: sound") as sound_tab:
                self.sound = gr.Audio(
                    label="A voice",
                    show_label=False,
                    sources=["upload", "microphone"],
                    type="filepath",
                    elem_id="voice-sound",
                )
            with gr.Tab("Voice: text", visible=reader is not None) as text_tab:
                self.text = gr.Textbox(
                    label=f"A text, read by {reader}",
                    lines=4,
                    max_length=self.studio.limits.letters,
                    elem_id="voice-text",
                )
        sound_tab.select(lambda: _SOUND, None, self.source, queue=False, api_visibility="private")
        text_tab.select(lambda: _TEXT, None, self.source, queue=False, api_visibility="private")

    def _connect(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        faces = [self.video, self.picture]
        for component in faces:
            component.change(self._look, faces, [self.status, self.faces, self.choice, *faces], **private)
        self.sound.change(self._hear, self.sound, None, queue=False, **private)
        self.faces.select(_chosen, None, self.choice, queue=False, **private)
        asked = [self.choice, self.source, self.sound, self.text, *self.settings]
        self.buttons = [self.look_button, self.make_button, self.stop_button]
        self.look_button.click(self._preview, asked, [self.status, self.moment, *self.buttons], **private)
        self.results = [self.before_video, self.before_picture, self.result, self.download, self.measured, self.command]
        self.make_button.click(
            self._make, [*faces, *asked], [self.status, self.moment, *self.results, *self.buttons], **private
        )
        self.stop_button.click(self._stop, None, None, queue=False, **private)
        self.blocks.unload(self._leave)

    def _session(self, request: gr.Request) -> Session:
        """The visitor's own; a page that is loaded again is another visitor."""
        key = str(request.session_hash)
        with self._known:  # a face and a sound may be given at the same time
            if key not in self._sessions:
                self._sessions[key] = Session(self.studio)
            return self._sessions[key]

    def _leave(self, request: gr.Request) -> None:
        if session := self._sessions.pop(str(request.session_hash), None):
            session.close()

    def _stop(self, request: gr.Request) -> None:
        self._session(request).stop()

    def _hear(self, request: gr.Request, sound: str | None) -> None:
        """A sound was given, which goes with the visitor even where it is never used."""
        self._session(request).hold(None if sound is None else Path(sound))

    def _look(self, request: gr.Request, video: str | None, picture: str | None) -> Iterator[dict]:
        """A face was given or taken away; the newer one of a video and a picture takes the other's place."""
        session = self._session(request)
        given = [path for path in (video, picture) if path is not None]
        new = next((Path(path) for path in given if Path(path) != session.face), None)
        if new is None and given:
            yield {self.status: gr.skip()}  # without any yield Gradio would empty every output
            return
        session.choose(new)  # before anything is shown: what is taken away below calls this again
        hidden = gr.update(value=None, visible=False)
        words, first = "Looking for faces …" if new else "Give a face.", self.studio.default.settings.index
        yield {self.status: show.note(words), self.faces: hidden, self.choice: first}
        if new is None:
            return
        other = self.picture if str(new) == video else self.video
        if len(given) > 1:
            yield {other: None}
        try:
            found = session.look(new)
        except Exception as error:
            yield {self.status: self._words(error)}
            return
        several = len(found) > 1
        words = f"{len(found)} faces: choose one." if several else "One face: ready."
        first = min(first, len(found) - 1)
        gallery = hidden
        if several:
            pictures = [str(session.picture(face)) for face in found]
            gallery = gr.update(value=pictures, visible=True, selected_index=first)
        yield {self.status: show.note(words), self.faces: gallery, self.choice: first}

    def _preview(
        self, request: gr.Request, choice: int, source: str, sound: str | None, text: str, *settings: Any
    ) -> Iterator[dict]:
        yield {self.status: show.note("Painting one frame …"), **self._busy(True)}
        session = self._session(request)
        try:
            moment = session.picture(session.preview(choice, _voice(source, sound, text), self._changes(settings)))
            shown = gr.update(value=str(moment), visible=True)
            yield {self.status: show.note("One frame is painted."), self.moment: shown}
        except Exception as error:
            yield {self.status: self._words(error)}
        yield self._busy(False)

    def _make(
        self,
        request: gr.Request,
        video: str | None,
        picture: str | None,
        choice: int,
        source: str,
        sound: str | None,
        text: str,
        *settings: Any,
    ) -> Iterator[dict]:
        yield {**{part: gr.update(visible=False) for part in self.results}, **self._busy(True)}
        try:
            voice, changes = _voice(source, sound, text), self._changes(settings)
            for state in self._session(request).make(choice, voice, changes):
                yield {self.status: show.progress(state)}
            yield {self.moment: gr.update(visible=False), **self._finished(state.made, video, picture)}
        except Exception as error:
            yield {self.status: self._words(error)}
        yield self._busy(False)

    def _finished(self, made: Made | None, video: str | None, picture: str | None) -> dict:
        assert made is not None
        return {
            self.before_video: gr.update(value=video, visible=video is not None),
            self.before_picture: gr.update(value=picture, visible=video is None),
            self.result: gr.update(value=str(made.path), visible=True),
            self.download: gr.update(value=str(made.path), visible=True),
            self.measured: gr.update(value=show.measured(made), visible=True),
            self.command: gr.update(value=made.command, visible=True),
        }

    def _busy(self, busy: bool) -> dict:
        return {button: gr.update(interactive=busy == (button is self.stop_button)) for button in self.buttons}

    def _changes(self, values: tuple[Any, ...]) -> list[str]:
        keys = [setting.key for setting in self._shown]
        return overrides(dict(zip(keys, values, strict=True)), self._start)

    def _words(self, error: Exception) -> str:
        """What the visitor is told of an error."""
        if isinstance(error, Stopped):
            return show.note("Stopped; nothing was kept.")
        if not isinstance(error, InputError):
            _LOG.error("the page broke", exc_info=error)
            error = InputError("this is the page's fault, not yours; what broke stands in the log of whoever runs it")
        return show.problem(error, self.studio.folder)


def _voice(source: str, sound: str | None, text: str) -> Voice | None:
    if source == _TEXT:
        return text
    return None if sound is None else Path(sound)


def _chosen(event: gr.SelectData) -> int:
    return event.index


def _widget(setting: Setting, value: Any) -> gr.components.Component:
    if setting.span is not None:
        least, most, step = setting.span
        return gr.Slider(least, most, value, step=step, label=setting.label, info=setting.help)
    if setting.choices:
        choices = [*setting.choices, *({value} - {*setting.choices})]
        return gr.Dropdown(choices, value=value, label=setting.label, info=setting.help)
    return gr.Checkbox(value, label=setting.label, info=setting.help)
