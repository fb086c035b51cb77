// A Neo4j server as HOME/neo4j.conf says, until it is told to end: java Server.java HOME PASSWORD

import java.nio.file.Path;
import java.util.Map;
import org.neo4j.dbms.api.DatabaseManagementService;
import org.neo4j.dbms.api.DatabaseManagementServiceBuilder;

public final class Server {
    public static void main(String[] args) {
        try {
            run(Path.of(args[0]), args[1]);
        } catch (Throwable failure) {
            failure.printStackTrace();
            System.exit(1);   // threads of the server's would keep it going
        }
    }

    private static void run(Path home, String password) throws InterruptedException {
        DatabaseManagementService server = new DatabaseManagementServiceBuilder(home)
            .loadPropertiesFromFile(home.resolve("neo4j.conf"))
            .build();
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdown));
        server.database("system").executeTransactionally(
            "CREATE OR REPLACE USER neo4j SET PASSWORD $password CHANGE NOT REQUIRED",
            Map.of("password", password));
        System.out.println("ready");
        Thread.currentThread().join();
    }
}
