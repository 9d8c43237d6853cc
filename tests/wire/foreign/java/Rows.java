import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;

/** What both Java programs share: their arguments, one line of JSON a row, and the near ends of forwards. */
final class Rows {
    final int port;
    final String user;
    final String key;
    final String directory;
    final int echoPort;

    Rows(String[] arguments) {
        port = Integer.parseInt(arguments[0]);
        user = arguments[1];
        key = arguments[2];
        directory = arguments[3];
        echoPort = Integer.parseInt(arguments[4]);
    }

    static Map<String, Object> seen(Object... pairs) {
        Map<String, Object> made = new LinkedHashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            made.put((String) pairs[i], pairs[i + 1]);
        }
        return made;
    }

    void row(String name, Callable<Map<String, Object>> made) {
        Map<String, Object> told = seen("row", name);
        try {
            told.putAll(made.call());
        } catch (Exception exception) {
            told.put("error", exception.toString());
        }
        StringBuilder line = new StringBuilder();
        told.forEach((field, value) -> line.append(line.length() == 0 ? "{" : ", ")
            .append(quoted(field)).append(": ")
            .append(value instanceof Number ? value.toString() : quoted(String.valueOf(value))));
        System.out.println(line + "}");
        System.out.flush();
    }

    private static String quoted(String text) {
        StringBuilder made = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            made.append(c < ' ' || c > '~' || c == '"' || c == '\\' ? String.format("\\u%04x", (int) c) : String.valueOf(c));
        }
        return made.append('"').toString();
    }

    byte[] piece() throws Exception {
        return Arrays.copyOf(Files.readAllBytes(Path.of(directory, "payload")), 65536);
    }

    static String digest(byte[] data) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
    }

    /** Send through a port of this machine and return as much of what comes back, with both directions open. */
    static byte[] echoed(int port, byte[] data) throws Exception {
        try (Socket link = new Socket("127.0.0.1", port)) {
            link.setSoTimeout(30_000);
            link.getOutputStream().write(data);
            return link.getInputStream().readNBytes(data.length);
        }
    }

    /** Send through a port of this machine, end that direction, and return what came back. */
    static byte[] through(int port, byte[] data) throws Exception {
        try (Socket link = new Socket("127.0.0.1", port)) {
            link.setSoTimeout(30_000);
            link.getOutputStream().write(data);
            link.shutdownOutput();
            return link.getInputStream().readAllBytes();
        }
    }

    static String until(InputStream stream, String words) throws Exception {
        ByteArrayOutputStream shown = new ByteArrayOutputStream();
        byte[] piece = new byte[4096];
        while (!shown.toString(StandardCharsets.UTF_8).contains(words)) {
            int size = stream.read(piece);
            if (size < 0) {
                throw new java.io.EOFException(shown.toString(StandardCharsets.UTF_8));
            }
            shown.write(piece, 0, size);
        }
        return shown.toString(StandardCharsets.UTF_8);
    }

    static String text(InputStream stream) throws Exception {
        return new String(stream.readAllBytes(), StandardCharsets.UTF_8);
    }
}
