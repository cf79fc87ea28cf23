"""A notification server that shares no code with the agent: the system's Python, libdbus and GLib.

It shows nothing, prints each call as a line of JSON, and takes lines: ID ACTION presses a button.
"""

from __future__ import annotations

import ctypes
import json
import select
import sys

import dbus.mainloop.glib
import dbus.service

NAME = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"


def say(*values: object) -> None:
    print(json.dumps(values), flush=True)


class Notifications(dbus.service.Object):
    last = 40

    @dbus.service.method(NAME, in_signature="", out_signature="as")
    def GetCapabilities(self):  # noqa: N802
        return ["actions", "body"]

    @dbus.service.method(NAME, in_signature="susssasa{sv}i", out_signature="u")
    def Notify(self, app, replaces, icon, summary, body, actions, hints, expires):  # noqa: N802
        self.last += 1
        urgency = hints["urgency"]
        say("Notify", self.last, replaces, summary, body, actions, [type(urgency).__name__, int(urgency)], expires)
        return self.last

    @dbus.service.method(NAME, in_signature="u", out_signature="")
    def CloseNotification(self, number):  # noqa: N802
        say("CloseNotification", number)
        self.NotificationClosed(number, 3)

    @dbus.service.signal(NAME, signature="us")
    def ActionInvoked(self, number, action):  # noqa: N802
        pass

    @dbus.service.signal(NAME, signature="uu")
    def NotificationClosed(self, number, reason):  # noqa: N802
        pass


connection = dbus.bus.BusConnection(sys.argv[1], mainloop=dbus.mainloop.glib.DBusGMainLoop())
name = dbus.service.BusName(NAME, connection)
made = Notifications(connection, PATH)
glib = ctypes.CDLL("libglib-2.0.so.0")
say("ready")
while True:
    # One thread, so that the answer to a call goes out before a press of what it showed.
    while glib.g_main_context_iteration(None, False):
        pass
    if select.select([sys.stdin], [], [], 0.01)[0]:
        number, action = sys.stdin.readline().split()
        made.ActionInvoked(int(number), action)
