import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.PublicKey;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import net.schmizz.keepalive.KeepAliveProvider;
import net.schmizz.sshj.DefaultConfig;
import net.schmizz.sshj.SSHClient;
import net.schmizz.sshj.connection.channel.direct.DirectConnection;
import net.schmizz.sshj.connection.channel.direct.Session;
import net.schmizz.sshj.connection.channel.forwarded.RemotePortForwarder;
import net.schmizz.sshj.connection.channel.forwarded.SocketForwardingConnectListener;
import net.schmizz.sshj.sftp.SFTPClient;
import net.schmizz.sshj.transport.verification.HostKeyVerifier;

/** The rows of tests/wire/foreign/__init__.py by sshj. */
final class Sshj {
    private static SSHClient client;

    private static Map<String, Object> run(String command, String input) throws Exception {
        try (Session session = client.startSession()) {
            Session.Command program = session.exec(command);
            program.getOutputStream().write(input.getBytes(StandardCharsets.UTF_8));
            program.getOutputStream().close();
            String out = Rows.text(program.getInputStream());
            String err = Rows.text(program.getErrorStream());
            program.join(30, TimeUnit.SECONDS);
            return Rows.seen("out", out, "err", err, "status", program.getExitStatus());
        }
    }

    private static Map<String, Object> pty() throws Exception {
        try (Session session = client.startSession()) {
            session.allocatePTY("vt100", 91, 33, 0, 0, Collections.emptyMap());
            Session.Shell shell = session.startShell();
            shell.getOutputStream().write("stty size\n".getBytes(StandardCharsets.UTF_8));
            shell.getOutputStream().flush();
            String shown = Rows.until(shell.getInputStream(), "33 91");
            shell.changeWindowDimensions(120, 40, 0, 0);
            shell.getOutputStream().write("stty size; echo $TERM; exit 4\n".getBytes(StandardCharsets.UTF_8));
            shell.getOutputStream().flush();
            shown += Rows.text(shell.getInputStream());
            shell.join(30, TimeUnit.SECONDS);
            return Rows.seen("shown", shown, "status", ((Session.Command) shell).getExitStatus());
        }
    }

    public static void main(String[] arguments) throws Exception {
        Rows rows = new Rows(arguments);
        AtomicInteger exchanges = new AtomicInteger();
        DefaultConfig config = new DefaultConfig();
        // SSH_MSG_IGNORE without its string (RFC 4253 §11.2).
        config.setKeepAliveProvider(KeepAliveProvider.HEARTBEAT);
        client = new SSHClient(config);
        client.setTimeout(30_000);
        client.getConnection().getKeepAlive().setKeepAliveInterval(1);
        // Asked in every key exchange, so that it counts them.
        client.addHostKeyVerifier(new HostKeyVerifier() {
            @Override
            public boolean verify(String host, int port, PublicKey key) {
                exchanges.incrementAndGet();
                return true;
            }

            @Override
            public List<String> findExistingAlgorithms(String host, int port) {
                return Collections.emptyList();
            }
        });
        client.connect("127.0.0.1", rows.port);
        client.authPublickey(rows.user, client.loadKeys(rows.key));
        rows.row("login", () -> Rows.seen());
        rows.row("exec", () -> run("cat; echo err >&2; exit 7", "out\n"));
        rows.row("pty", Sshj::pty);
        rows.row("symlink", () -> {
            try (SFTPClient sftp = client.newSFTPClient()) {
                // Sent as the draft says, to every server; OpenSSH takes the target first.
                sftp.symlink("a-target", rows.directory + "/link");
                String target = sftp.readlink(rows.directory + "/link");
                return Rows.seen("target", target, "note", "the program swaps the arguments, as for `sshd`");
            }
        });
        rows.row("transfer", () -> {
            try (SFTPClient sftp = client.newSFTPClient()) {
                sftp.put(rows.directory + "/payload", rows.directory + "/put");
                sftp.get(rows.directory + "/put", rows.directory + "/got");
                return Rows.seen();
            }
        });
        rows.row("local_forward", () -> {
            try (DirectConnection link = client.newDirectConnection("127.0.0.1", rows.echoPort)) {
                link.getOutputStream().write(rows.piece());
                link.getOutputStream().close();
                return Rows.seen("digest", Rows.digest(link.getInputStream().readAllBytes()));
            }
        });
        rows.row("remote_forward", () -> {
            RemotePortForwarder.Forward forward = client.getRemotePortForwarder().bind(
                new RemotePortForwarder.Forward("127.0.0.1", 0),
                new SocketForwardingConnectListener(new InetSocketAddress("127.0.0.1", rows.echoPort)));
            String heard = "";
            // On a busy machine sshj may drop what comes before its own connection is up; at sshd too.
            for (int tries = 0; heard.isEmpty() && tries < 5; tries++) {
                heard = new String(Rows.through(forward.getPort(), "hello".getBytes()), StandardCharsets.UTF_8);
            }
            client.getRemotePortForwarder().cancel(forward);
            return Rows.seen("heard", heard);
        });
        rows.row("rekey", () -> {
            int before = exchanges.get();
            client.getTransport().doKex();
            return Rows.seen("out", run("echo after", "").get("out"), "exchanges", exchanges.get() - before);
        });
        rows.row("keepalive", () -> run("sleep 3; echo kept", ""));
        client.disconnect();
    }
}
